"""The app's screens, each with its style sheet next to it."""
