"""Run parts of Django's own test suite with the session engine of the settings.

    python django_suite.py TESTS LABEL ...

TESTS is the folder of tests in Django's source package.  Prints a line "ok ..." or "not ok ..."
for each test; and for each suite how many tests there were, and why some were skipped.
"""

from __future__ import annotations

import inspect
import os
import sys
import unittest
from collections import Counter
from collections.abc import Iterator
from typing import Any

import django
from cannot_apply import cannot_apply
from django.test.runner import DiscoverRunner

#: With Django's tests of sessions go those that it has for every engine, for ours.
SESSIONS, ENGINE_TESTS = "sessions_tests", "engine_tests"


def name_of(test: Any) -> str:
    return str(test.id())


def suite_of(name: str) -> str:
    return name.split(".")[0]


class Result(unittest.TextTestResult):
    """Prints a line for each test."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.dots = False
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.reasons: Counter[tuple[str, str]] = Counter()
        self._bad: set[str] = set()

    def _count(self, test: Any, outcome: str) -> None:
        self.outcomes[suite_of(name_of(test)), outcome] += 1

    def _say(self, line: str) -> None:
        """On a line of its own, whatever a test has printed."""
        self.stream.write(f"\n{line}\n")
        self.stream.flush()

    def _failed(self, test: Any, remark: str = "") -> None:
        """Once for a test, whatever of it fails: tearDown and subtests count for themselves."""
        name = name_of(getattr(test, "test_case", test))
        if name in self._bad:
            return
        self._bad.add(name)
        self._count(test, "failed")
        self._say(f"not ok {name}{remark}")

    def addSuccess(self, test: Any) -> None:
        super().addSuccess(test)
        if name_of(test) not in self._bad:
            self._count(test, "passed")
            self._say(f"ok {name_of(test)}")

    def addFailure(self, test: Any, err: Any) -> None:
        super().addFailure(test, err)
        self._failed(test)

    def addError(self, test: Any, err: Any) -> None:
        super().addError(test, err)
        self._failed(test)

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._failed(test)

    def addSkip(self, test: Any, reason: str) -> None:
        super().addSkip(test, reason)
        self._count(test, "skipped")
        self.reasons[suite_of(name_of(test)), reason] += 1

    def addExpectedFailure(self, test: Any, err: Any) -> None:
        super().addExpectedFailure(test, err)
        self._count(test, "cannot apply")

    def addUnexpectedSuccess(self, test: Any) -> None:
        super().addUnexpectedSuccess(test)
        self._failed(test, " passes, and the list of those that cannot apply has it")


def flatten(suite: Any) -> Iterator[Any]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flatten(test)
        else:
            yield test


def tests_another_engine(case: type) -> bool:
    bases = {base.__name__ for base in case.__mro__}
    return "SessionTestsMixin" in bases and case.__module__ != ENGINE_TESTS


class Runner(DiscoverRunner):
    """Leaves out what tests another engine, and expects what cannot apply to fail."""

    def get_resultclass(self) -> Any:
        return Result

    def build_suite(self, test_labels: Any = None, *args: Any, **kwargs: Any) -> Any:
        tests = [
            test
            for test in flatten(super().build_suite(test_labels, *args, **kwargs))
            if not tests_another_engine(type(test))
        ]
        excused = {
            name: reason
            for name, reason in cannot_apply(django.VERSION[:2]).items()
            if suite_of(name) in test_labels
        }
        for test in tests:
            if excused.pop(name_of(test), None):
                # What the decorator expectedFailure sets.
                test.__unittest_expecting_failure__ = True
        for name in excused:
            print(f"not ok {name} is not there, and the list of those that cannot apply has it")
        self.missing = len(excused)
        return self.test_suite(tests)

    def suite_result(self, suite: Any, result: Any, **kwargs: Any) -> int:
        failed = super().suite_result(suite, result, **kwargs)
        for name in sorted({suite for suite, _ in result.outcomes}):
            counts = ", ".join(
                f"{count} {outcome}"
                for (suite_name, outcome), count in sorted(result.outcomes.items())
                if suite_name == name
            )
            print(f"# Django {django.get_version()}, {name}: {counts}")
        for (name, reason), count in sorted(result.reasons.items()):
            print(f"# {name}: {count} skipped by themselves: {reason}")
        return failed + self.missing


def main(folder: str, *labels: str) -> int:
    os.environ["DJANGO_SETTINGS_MODULE"] = "django_settings"
    os.chdir(folder)
    sys.path.insert(0, folder)
    import runtests

    runtests.ALWAYS_INSTALLED_APPS.append("session_manager")
    wanted = list(labels)
    if SESSIONS in wanted:
        wanted.append(ENGINE_TESTS)
    options = {
        "verbosity": 1,
        "test_labels": wanted,
        "parallel": 1,
        "exclude_tags": ["selenium"],
    }
    for parameter in inspect.signature(runtests.django_tests).parameters.values():
        if parameter.default is parameter.empty:
            options.setdefault(parameter.name, None)
    options.update(shuffle=False, interactive=False)
    return 1 if runtests.django_tests(**options) else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
