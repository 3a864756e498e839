"""Functions of a row: macros of DuckDB, and SQL functions of PostgreSQL. Both are inlined where they are called."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scalar:
    """A function that is used inside queries: what `braidwater sql` answers when it is asked for help, and the SQL of its bodies.

    `parameters` are names and PostgreSQL types; the last `defaults` of them have the value NULL's place is taken by.
    """

    name: str
    parameters: tuple[tuple[str, str], ...]
    returns: str
    about: str
    duckdb: str
    postgres: str
    default: tuple[str, str] | None = None  # the last parameter, where it may be left out, and its value

    @property
    def signature(self) -> str:
        parts = [f"{name} {kind}" for name, kind in self.parameters]
        if self.default is not None:
            parts[-1] += f" = {self.default[1]}"
        return f"{self.name}({', '.join(parts)}) -> {self.returns}"

    def help(self) -> str:
        return f"{self.about}\n\nmadlib.{self.signature}"


_TWO = (("x", "float8[]"), ("y", "float8[]"))
_MODEL = (("coef", "float8[]"), ("col_ind", "float8[]"))
# NULL where a number of the row is NULL, as in MADlib; an error where there are more or fewer than coefficients
# Not a CASE around list_dot_product: it looks at all arrays of a vector, those with NULLs too, before it takes the rows it is for
_DUCK_DOT = (
    "(list_dot_product({0}::DOUBLE[], list_transform({1}::DOUBLE[], lambda v: coalesce(v, 0.0))) "
    "+ CASE WHEN list_count({1}) = len({1}) THEN 0.0::DOUBLE END)"
)
_PG_DOT = "(SELECT CASE WHEN count(*) = count(b) THEN sum(a * b) END FROM unnest({0}, {1}) AS u(a, b))"


def _duck_dot(one: str, other: str) -> str:
    return _DUCK_DOT.format(one, other)


def _pg_dot(one: str, other: str) -> str:
    return _PG_DOT.format(one, other)


def _pg_pairs(what: str) -> str:
    return f"(SELECT {what} FROM unnest(x, y) AS u(a, b))"


_DUCK_DISTANCE = {
    "squared_dist_norm2": "power(list_distance({0}::DOUBLE[], {1}::DOUBLE[]), 2)",
    "dist_norm2": "list_distance({0}::DOUBLE[], {1}::DOUBLE[])",
    "dist_norm1": "list_sum(list_transform(list_zip({0}::DOUBLE[], {1}::DOUBLE[]), lambda p: abs(p[1] - p[2])))",
    "dist_angle": "acos(greatest(-1.0, least(1.0, list_cosine_similarity({0}::DOUBLE[], {1}::DOUBLE[]))))",
}
POSTGRES_DISTANCE = {
    "squared_dist_norm2": "sum((a - b) * (a - b))",
    "dist_norm2": "sqrt(sum((a - b) * (a - b)))",
    "dist_norm1": "sum(abs(a - b))",
    "dist_angle": "acos(greatest(-1.0, least(1.0, sum(a * b) / sqrt(sum(a * a) * sum(b * b)))))",
}
_ABOUT = {
    "squared_dist_norm2": "The square of the Euclidean distance of two arrays.",
    "dist_norm2": "The Euclidean distance of two arrays.",
    "dist_norm1": "The sum of the absolute differences of two arrays.",
    "dist_angle": "The angle between two arrays, in radians.",
}


def _duck_closest() -> str:
    cases = " ".join(
        f"WHEN '{name}' THEN list_transform(m, lambda c: {body.format('c', 'x')})"
        for name, body in _DUCK_DISTANCE.items()
    )
    known = ", ".join(_DUCK_DISTANCE)
    unknown = f"error('dist=' || dist || ' is not possible; it must be one of {known}.')"
    distances = f"CASE replace(lower(trim(dist)), 'madlib.', '') {cases} ELSE {unknown} END"
    return (
        f"list_transform([{distances}], lambda d: {{'column_id': (list_position(d, list_min(d)) - 1)::INTEGER, "
        "'distance': list_min(d)})[1]"
    )


SCALARS = (
    Scalar("linregr_predict", _MODEL, "float8", "The prediction of a linear model for the variables of a row.",
           _duck_dot("coef", "col_ind"), _pg_dot("coef", "col_ind")),
    Scalar("logregr_predict", _MODEL, "boolean", "The likelier answer of a logistic model for the variables of a row.",
           f"({_duck_dot('coef', 'col_ind')}) > 0", f"{_pg_dot('coef', 'col_ind')} > 0"),
    Scalar("logregr_predict_prob", _MODEL, "float8", "The probability of TRUE by a logistic model for the variables of a row.",
           f"1 / (1 + exp(-({_duck_dot('coef', 'col_ind')})))",
           f"(SELECT 1 / (1 + exp(greatest(least(-z, 700), -700))) FROM (SELECT {_pg_dot('coef', 'col_ind')} AS z) AS q)"),
    *(Scalar(name, _TWO, "float8", _ABOUT[name], body.format("x", "y"), _pg_pairs(POSTGRES_DISTANCE[name]))
      for name, body in _DUCK_DISTANCE.items()),
    Scalar("closest_column", (("m", "float8[][]"), ("x", "float8[]"), ("dist", "text")), "(column_id integer, distance float8)",
           "The place, from 0, of the array in m that is nearest to x, and its distance.", _duck_closest(), "",
           ("dist", "'squared_dist_norm2'")),
    Scalar("array_dot", _TWO, "float8", "The sum of the products of two arrays.",
           "list_dot_product(x::DOUBLE[], y::DOUBLE[])", _pg_pairs("sum(a * b)")),
    Scalar("array_add", _TWO, "float8[]", "The sums of the elements of two arrays.",
           "list_transform(list_zip(x, y), lambda p: p[1] + p[2])", "(SELECT array_agg(a + b) FROM unnest(x, y) AS u(a, b))"),
    Scalar("array_sub", _TWO, "float8[]", "The differences of the elements of two arrays.",
           "list_transform(list_zip(x, y), lambda p: p[1] - p[2])", "(SELECT array_agg(a - b) FROM unnest(x, y) AS u(a, b))"),
    Scalar("array_sum", (("x", "float8[]"),), "float8", "The sum of the elements of an array.", "list_sum(x)",
           "(SELECT sum(a) FROM unnest(x) AS a)"),
    Scalar("array_mean", (("x", "float8[]"),), "float8", "The mean of the elements of an array.", "list_avg(x)",
           "(SELECT avg(a) FROM unnest(x) AS a)"),
    Scalar("array_max", (("x", "float8[]"),), "float8", "The largest element of an array.", "list_max(x)",
           "(SELECT max(a) FROM unnest(x) AS a)"),
    Scalar("array_min", (("x", "float8[]"),), "float8", "The smallest element of an array.", "list_min(x)",
           "(SELECT min(a) FROM unnest(x) AS a)"),
    Scalar("array_scalar_mult", (("x", "float8[]"), ("y", "float8")), "float8[]", "An array times a number.",
           "list_transform(x, lambda a: a * y)", "(SELECT array_agg(a * y) FROM unnest(x) AS a)"),
    Scalar("norm2", (("x", "float8[]"),), "float8", "The Euclidean length of an array.",
           "sqrt(list_dot_product(x::DOUBLE[], x::DOUBLE[]))", "(SELECT sqrt(sum(a * a)) FROM unnest(x) AS a)"),
)  # fmt: skip
