"""The reference for readtrack's speed: a list and the details of its line, with Textual's own widgets."""

from textual.app import App, ComposeResult
from textual.containers import Horizontal
from textual.widgets import OptionList, Static

WORDS = "some words of an abstract " * 40


class MinimalApp(App[None]):
    CSS = "OptionList, Static { width: 1fr; }"

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield OptionList(*[f"paper {number} with a title of some words" for number in range(130)])
            yield Static(id="details")

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        self.query_one("#details", Static).update(f"Details of paper {event.option_index}\n\n{WORDS}")


if __name__ == "__main__":
    MinimalApp().run()
