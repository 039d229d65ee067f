"""The device-aware benchmark: what a plugin declares (`case`) and how the core measures it (`measure`)."""
