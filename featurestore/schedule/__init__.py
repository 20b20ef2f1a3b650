"""What is to be computed when: windows that are due, what was tried, and the journals that say so, kept in memory."""
