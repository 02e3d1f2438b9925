"""The seven exercises, solved. A student's file is one of these without the bodies and the answers."""
