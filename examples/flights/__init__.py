"""The demo domain: the flights that left New York in 2013, replayed on today's calendar."""
