"""The online store: its message format, its keys and its tiers. Import the module you need; nothing is imported here."""
