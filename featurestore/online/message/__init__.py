"""The online message, bytes to columns and back; `codec` draws it. No store, no socket; nothing is imported here."""
