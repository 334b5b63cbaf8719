"""The live dashboard. It only reads."""
