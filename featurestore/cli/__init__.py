"""The command line `featurestore`: shells around the library that parse what is asked and print what it says."""
