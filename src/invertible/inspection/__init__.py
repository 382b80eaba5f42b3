"""What an invertible network costs and how exactly it is inverted. Pictures (matplotlib) are imported by module."""

from .calls import FirstCalls as FirstCalls
from .calls import TreeCall as TreeCall
from .costs import Block as Block
from .costs import Inspection as Inspection
from .costs import inspect as inspect
from .reconstruction import LeafError as LeafError
from .reconstruction import LeafNames as LeafNames
from .reconstruction import reconstruction_errors as reconstruction_errors
from .reconstruction import relative_error as relative_error
from .reconstruction import relative_errors as relative_errors
from .saved_bytes import ELSEWHERE as ELSEWHERE
from .saved_bytes import saved_by_block as saved_by_block
