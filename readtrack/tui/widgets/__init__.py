"""The app's widgets, and the pure functions that draw into them."""
