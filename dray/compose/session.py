"""What is known while one project loads: files read, the environment, limits, problems."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Final

from dray.compose.dotenv import ENV_BYTES_MAX, BadEnvFile, parse_env, parse_raw_env
from dray.compose.interpolate import Lookup
from dray.compose.tree import Keys, Mark, Problems, Refused, Unread
from dray.compose.types import COMPOSE_BYTES_MAX, FileSystem, LoadRequest
from dray.compose.yaml_read import TOO_MANY, TOO_MANY_HINT, Budget, Document, read_documents
from dray.errors import DrayError

__all__ = ["FILES_MAX", "Session"]

# What "~" means without a HOME variable: Debian's home of users that have none. Never a folder
# named "~" in the project.
HOMELESS: Final = "/nonexistent"
FILES_MAX: Final = 500  # files of one project, those read by include, extends and env_file included
_FORMATS: Final = {"": parse_env, ".env": parse_env, "raw": parse_raw_env}


class Session:
    """The reading side of one load.

    Attributes:
        request: What was asked for.
        problems: What is wrong so far.
        budget: What may still be read.
        unset: Variables that were replaced by nothing, and where first.
        used_files: Every file that was read, in order.
        contents: What configs and secrets hold that a variable gives, by (section, name).
        home: The user's home folder.
        project_name: The project's name, once it is known.
    """

    def __init__(self, request: LoadRequest, files: FileSystem) -> None:
        """Start with nothing read."""
        self.request = request
        self.problems = Problems()
        self.budget = Budget()
        self.unset: dict[str, Mark | None] = {}
        self.used_files: list[str] = []
        self.contents: dict[Keys, bytes] = {}
        self.home = dict(request.environment).get("HOME") or HOMELESS
        self.project_name = ""
        self._files = files
        self._documents: dict[str, list[Document]] = {}

    def exists(self, path: str) -> bool:
        """Return whether there is a file or folder of that name."""
        return _is_proper(path) and self._files.exists(path)

    def read(self, path: str, bytes_max: int, mark: Mark | None, where: Keys | str) -> bytes | None:
        """Return a file's content, or None after recording why it cannot be read."""
        if path not in self.used_files:
            if len(self.used_files) >= FILES_MAX:
                self.problems.add(mark, where, f"the project has more than {FILES_MAX} files")
                raise Refused
            self.used_files.append(path)
        if not _is_proper(path):
            self.problems.add(mark, where, f"{path[:80]!r} is not a path of a file")
            return None
        try:
            content = self._files.read(path, bytes_max)
        except DrayError as error:
            self.problems.add(mark, where, error.message, error.hint)
            return None
        if content is None:
            self.problems.add(mark, where, f"there is no file {path}")
        elif len(content) > bytes_max:
            self.problems.add(mark, where, f"{path} is larger than {bytes_max:,} bytes")
            return None
        return content

    def peek(self, path: str, bytes_max: int) -> bytes | None:
        """Return a file's content, or None if it is not there, not readable or too large."""
        if not _is_proper(path) or len(self.used_files) >= FILES_MAX:
            return None
        try:
            content = self._files.read(path, bytes_max)
        except DrayError:
            return None
        if content is None or len(content) > bytes_max:
            return None
        self.used_files.append(path)
        return content

    def documents(self, path: str, mark: Mark | None, where: Keys | str) -> list[Document]:
        """Return a Compose file's documents; the caller may use them up.

        Raises:
            Unread: It cannot be read.
            Refused: It cannot be parsed.
        """
        documents = self.peek_documents(path, mark, where)
        del self._documents[path]
        return documents

    def peek_documents(self, path: str, mark: Mark | None, where: Keys | str) -> list[Document]:
        """Return a Compose file's documents, to look at only.

        Raises:
            Unread: It cannot be read.
            Refused: It cannot be parsed.
        """
        if path not in self._documents:
            content = self.read(path, COMPOSE_BYTES_MAX, mark, where)
            if content is None:
                raise Unread
            self._documents[path] = read_documents(path, content, self.problems, self.budget)
        return self._documents[path]

    def spend(self, values: int, mark: Mark | None, where: Keys | str) -> None:
        """Count values that a file, an alias or `extends` adds.

        Raises:
            Refused: There are too many.
        """
        if not self.budget.spend(values):
            self.problems.add(mark, where, TOO_MANY, TOO_MANY_HINT)
            raise Refused

    def env_file(
        self,
        path: str,
        variables: dict[str, str],
        lookup: Lookup,
        mark: Mark | None = None,
        where: Keys | str = "",
        file_format: str = "",
    ) -> bool:
        """Add the variables of an env file, or record why it cannot be read; return which."""
        parse = _FORMATS.get(file_format)
        if parse is None:
            message = f"{file_format!r} is not a format of env files"
            self.problems.add(mark, where, message, "leave it out, or write raw")
            return False
        content = self.read(path, ENV_BYTES_MAX, mark, where)
        if content is None:
            return False
        try:
            parse(content, variables, lookup)
        except BadEnvFile as error:
            self.problems.add((path, error.line, 1), "", error.message)
            return False
        return True

    def with_env_files(
        self, environment: Mapping[str, str], paths: list[str], mark: Mark | None, where: Keys | str
    ) -> dict[str, str]:
        """Return an environment with what env files add to it; it wins over them.

        Raises:
            Unread: One cannot be read: variables that it sets would be missing.
        """
        added: dict[str, str] = {}
        is_read = [self.env_file(path, added, environment.get, mark, where) for path in paths]
        if not all(is_read):
            raise Unread
        return added | dict(environment)


def _is_proper(path: str) -> bool:
    return posixpath.isabs(path) and "\0" not in path and len(path) <= 4096
