"""The terminal app. `readtrack.tui.app.run` opens it."""
