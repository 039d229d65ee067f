"""The device-aware benchmark: declarations of a plugin (`case`) and their measurement (`measure`)."""
