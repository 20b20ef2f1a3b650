"""Signs of life of the processes that write tables, and the runs that were ended because theirs had stopped."""
