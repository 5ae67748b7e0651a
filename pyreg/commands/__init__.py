"""One file per command: declare the arguments, call one library function, print."""
