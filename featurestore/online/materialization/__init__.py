"""Moving the online copy from what each part records to what the table holds; `materialize` begins. Nothing is imported here."""
