"""Metadata filters: an expression such as ``label == "food" and year > 2000``."""

from __future__ import annotations

import ast
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from embedpress.errors import UsageError

_COMPARE: dict[type[ast.cmpop], Any] = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}
_LONGEST = 10_000


def filter_rows(table: pa.Table, expression: str) -> NDArray[np.bool_]:
    """Which rows an expression keeps.

    Parameters
    ----------
    table : pyarrow.Table
    expression : str
        Column names, numbers, strings, True, False, ``== != < <= > >= in``, ``and or not``
        and brackets; parsed, never evaluated as code. A missing value keeps no row.

    Returns
    -------
    ndarray of shape (n,), bool

    Raises
    ------
    UsageError
        The expression is not one, or names a column that is not there.
    """
    if len(expression) > _LONGEST:
        raise UsageError(f"the filter is longer than {_LONGEST} characters")
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
        mask = _evaluate(tree, table)
    except UsageError:
        raise
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        first = str(error).splitlines()[0]
        raise UsageError(f"filter {expression!r} compares unlike types: {first}") from None
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
        raise UsageError(f'filter {expression!r} is not an expression like label == "x"') from None
    if not pa.types.is_boolean(mask.type):
        raise UsageError(f"filter {expression!r} must compare something, as in year > 2000")
    kept: NDArray[np.bool_] = pc.fill_null(mask, False).to_numpy(zero_copy_only=False)
    return kept


def _evaluate(node: ast.expr, table: pa.Table) -> Any:
    if isinstance(node, ast.BoolOp):
        join = pc.and_kleene if isinstance(node.op, ast.And) else pc.or_kleene
        masks = [_evaluate(value, table) for value in node.values]
        result = masks[0]
        for mask in masks[1:]:
            result = join(result, mask)
        return result
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return pc.invert(_evaluate(node.operand, table))
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        return _compare(node.left, node.ops[0], node.comparators[0], table)
    if isinstance(node, ast.Name):
        return _column(node, table)
    raise UsageError(f"a filter cannot contain {ast.unparse(node)!r}")


def _compare(left: ast.expr, op: ast.cmpop, right: ast.expr, table: pa.Table) -> Any:
    if not isinstance(left, ast.Name):
        raise UsageError(f"a filter compares a column first: {ast.unparse(left)!r} is none")
    column = _column(left, table)
    if isinstance(op, ast.In | ast.NotIn):
        if not isinstance(right, ast.List | ast.Tuple):
            raise UsageError('after "in" a filter takes a list, as in label in ["a", "b"]')
        values = pa.array([_constant(item) for item in right.elts])
        if pa.types.is_null(column.type):
            column = column.cast(values.type)
        pc.equal(column.slice(0, 0), values.slice(0, 0))  # refuses what == would refuse
        found = pc.is_in(column, value_set=values.cast(column.type))
        if isinstance(op, ast.NotIn):
            found = pc.invert(found)
        return pc.if_else(column.is_valid(), found, None)
    if type(op) not in _COMPARE:
        raise UsageError("a filter compares by == != < <= > >= in and not in")
    other = _column(right, table) if isinstance(right, ast.Name) else pa.scalar(_constant(right))
    return _COMPARE[type(op)](column, other)


def _column(node: ast.Name, table: pa.Table) -> Any:
    if node.id not in table.column_names:
        held = ", ".join(table.column_names)
        raise UsageError(f"the filter names {node.id!r}, but the index has the columns {held}")
    column = table[node.id].combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column


def _constant(node: ast.expr) -> Any:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _constant(node.operand)
        if isinstance(value, int | float):
            return -value
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | bool):
        return node.value
    raise UsageError(f"a filter compares with numbers and strings, not {ast.unparse(node)!r}")
