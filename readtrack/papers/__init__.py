"""Every plugin as `readtrack.papers.<id>`, wherever its file lies.

The search path goes over the plugin folders in the order user, path, shipped (see `readtrack.discovery`), so
`from readtrack.papers.mamba import Mamba` works in a notebook, in a checkout and from the wheel.
"""

from readtrack.discovery import search_path
from readtrack.home import Home

__path__ = search_path(Home())
