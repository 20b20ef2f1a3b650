"""Asset checks built from declarations."""
