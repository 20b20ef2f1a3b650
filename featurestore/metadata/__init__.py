"""The metadata database: requests for backfills, decisions, the audit, and documents kept with them."""
