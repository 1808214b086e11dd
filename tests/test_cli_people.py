"""Reading a table of people: every line is a person or a reason."""

import pytest

from tocsin.cli.people_csv import BadLine, NotATable, Person, read_people

HEADER = "id,email,phone,name\n"


def read(*lines: str) -> list[Person | BadLine]:
    return list(read_people(lines))


def test_a_line_becomes_a_person_with_what_it_gives() -> None:
    assert read(HEADER, "u1,asha@example.org,+1 415 555 0123,Asha Rao\n") == [
        Person(2, "u1", {"email": "asha@example.org", "phone": "+14155550123", "name": "Asha Rao"})
    ]


def test_an_empty_cell_is_not_given() -> None:
    assert read(HEADER, "u1,,,\n") == [Person(2, "u1", {})]


def test_columns_may_stand_in_any_order_and_case() -> None:
    assert read("Name, ID\n", "Asha,u1\n") == [Person(2, "u1", {"name": "Asha"})]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_that_of_the_first_line(delimiter: str) -> None:
    lines = (delimiter.join(cells) + "\n" for cells in (("id", "name"), ("u1", "Asha")))
    assert read(*lines) == [Person(2, "u1", {"name": "Asha"})]


def test_the_mark_that_spreadsheets_write_first_is_no_part_of_a_name() -> None:
    assert read("\ufeffid,name\n", "u1,Asha\n") == [Person(2, "u1", {"name": "Asha"})]


def test_line_numbers_count_every_line_of_the_file() -> None:
    lines = read(HEADER, "u1,,,\n", "\n", 'u2,,,"two\n', 'lines"\n', "u3,nobody,,\n")
    assert [line.line for line in lines] == [2, 4, 6]


@pytest.mark.parametrize(
    ("line", "column", "reason"),
    [
        (",a@example.org,,\n", "id", "letters"),
        ("u 1,,,\n", "id", "letters"),
        ("u1,nobody,,\n", "email", "name@domain"),
        ("u1,,415 555 0123,\n", "phone", "country code"),
        ("u1,,+999,\n", "phone", ""),
        ("u1,a@example.org\n", "", "2 cells where the header has 4"),
        ('u1,"a"b,,\n', "", "not proper CSV"),
    ],
)
def test_a_line_that_cannot_be_imported_says_why(line: str, column: str, reason: str) -> None:
    (bad,) = read(HEADER, line)
    assert isinstance(bad, BadLine)
    assert (bad.line, bad.column) == (2, column)
    assert reason in bad.reason


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("attributes.age:number", "9" * 5_000),
        ("attributes.age:number", "1e999"),
        ("attributes.age:number", "nan"),
        ("attributes", f'{{""age"": {"9" * 5_000}}}'),
        ("attributes", "[" * 100_000),
    ],
    ids=["digits", "exponent", "none at all", "digits in JSON", "depth"],
)
def test_a_value_beyond_all_measure_is_a_bad_line_like_any_other(column: str, text: str) -> None:
    bad, good = read(f"id,{column}\n", f'u1,"{text}"\n', "u2,\n")
    assert isinstance(bad, BadLine)
    assert (bad.line, bad.column) == (2, column)
    assert good == Person(3, "u2", {})


def test_a_bad_line_does_not_stop_the_others() -> None:
    kinds = [type(line) for line in read(HEADER, "u1,bad,,\n", "u2,,,\n", 'u3,"x"y,,\n', "u4,,,\n")]
    assert kinds == [BadLine, Person, BadLine, Person]


def test_the_second_of_two_lines_with_one_id_is_refused_and_names_the_first() -> None:
    first, second = read(HEADER, "u1,,,\n", "u1,,,\n")
    assert isinstance(first, Person)
    assert second == BadLine(3, "id", "line 2 has the same id")


@pytest.mark.parametrize(("text", "active"), [("true", True), ("No", False), ("1", True), ("0", False)])
def test_active_is_yes_or_no(text: str, active: bool) -> None:
    assert read("id,active\n", f"u1,{text}\n") == [Person(2, "u1", {"active": active})]


def test_active_is_nothing_else() -> None:
    assert read("id,active\n", "u1,perhaps\n") == [BadLine(2, "active", "it is neither true nor false")]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("", "no first line"),
        ("id,fax\n", "'fax'"),
        ("id,name,name\n", "twice"),
        ("email,name\n", "'id' is missing"),
        ("x" * 200_000, "not proper CSV"),
    ],
)
def test_a_header_that_cannot_be_used_is_refused(header: str, reason: str) -> None:
    with pytest.raises(NotATable, match=reason):
        read(header)
