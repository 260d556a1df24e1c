"""Any four methods that keep JSON hold live sessions: here a folder with one file for each."""

import json
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from tertulia import Session, SessionStore


class FolderStore(SessionStore):
    """Documents as files; an id is never a path."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def save(self, session_id: str, data: dict[str, Any]) -> None:
        self._file(session_id).write_text(json.dumps(data))

    def load(self, session_id: str) -> dict[str, Any] | None:
        file = self._file(session_id)
        return json.loads(file.read_text()) if file.exists() else None

    def delete(self, session_id: str) -> bool:
        file = self._file(session_id)
        return file.exists() and file.unlink() is None

    def list_sessions(self) -> list[str]:
        return [unquote(file.stem) for file in self.folder.glob("*.json")]

    def _file(self, session_id: str) -> Path:
        return self.folder / f"{quote(session_id, safe='')}.json"


folder = tempfile.mkdtemp()
Session("s", store=FolderStore(folder)).add_message({"role": "user", "content": "Keep this."})
later = Session("s", store=FolderStore(folder))  # as another process would
print([message.text for message in later.messages], "from", FolderStore(folder).list_sessions())
