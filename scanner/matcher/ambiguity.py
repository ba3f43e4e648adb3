"""Expressions that a backtracking engine reads in exponentially many ways.

Rules of other scanners are written for engines that do not backtrack. The reference is Python's
`re`, which does: `(?:[a-z]+-?){3,8}` takes it a quarter of a minute over fifty letters.
"""

from __future__ import annotations

from scanner.matcher.shape import Branch, Byte, Node, Nodes, widths


def is_ambiguous(nodes: Nodes) -> bool:
    """Tell whether a repeat's body can end where it could as well go on: then the same text is cut
    into its turns in many ways."""
    return any(map(_is_ambiguous, nodes))


def _is_ambiguous(node: Node) -> bool:
    if isinstance(node, Byte):
        return False
    if isinstance(node, Branch):
        return any(map(is_ambiguous, node.choices))
    turns = node.high is None or node.high > 1
    low, high = widths(node.nodes)
    if turns and low != high and _first(node.nodes) & _going_on(node.nodes):
        return True
    return is_ambiguous(node.nodes)


def _first(nodes: Nodes) -> frozenset[int]:
    """The bytes with which a match can begin."""
    found: frozenset[int] = frozenset()
    for node in nodes:
        if isinstance(node, Byte):
            return found | node.members
        choices = node.choices if isinstance(node, Branch) else (node.nodes,)
        found = found.union(*map(_first, choices))
        if widths((node,))[0]:
            break
    return found


def _going_on(nodes: Nodes) -> frozenset[int]:
    """The bytes with which a match that could end may go on."""
    found: frozenset[int] = frozenset()
    for node in reversed(nodes):
        if isinstance(node, Byte):
            break
        if isinstance(node, Branch):
            found = found.union(*map(_going_on, node.choices))
        else:
            found |= _going_on(node.nodes)
            if node.low != node.high:
                found |= _first(node.nodes)
        if widths((node,))[0]:
            break
    return found
