"""Every plugin as `readtrack.papers.<id>`, wherever its file is.

The search path contains the plugin folders in the order user, path, shipped (see
`readtrack.plugins.find`), so `from readtrack.papers.mamba import Mamba` works in a notebook, in a
checkout and from the wheel.
"""

from readtrack.home import Home
from readtrack.plugins.find import search_path

__path__ = search_path(Home())
