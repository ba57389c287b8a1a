"""From a data sheet to seconds, and from one device to another."""
