"""One package a method; a method never imports another."""
