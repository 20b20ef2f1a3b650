"""Starting the platform for a person, or for the demo."""
