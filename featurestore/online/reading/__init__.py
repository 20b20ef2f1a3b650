"""From entity rows to answers, through the tiers; `retrieval` begins. Nothing is imported here."""
