"""What a backfill would read, write and cost, told before anything runs from statistics, the ledger and a price book."""
