"""Which embedder is meant, a provider's over HTTP, and one on this machine."""

from __future__ import annotations

import asyncio
import gc
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast
from weakref import WeakSet

import pytest
from tests.agents.http_server import elsewhere
from tests.memory.embeddings_server import Server, embeddings_server

from tertulia import Memory, MemoryStore, Runtime, VectorMemoryService
from tertulia.errors import ConfigurationError, MissingExtra, ModelError
from tertulia.memory import Embedder, embedders, local
from tertulia.memory.providers import ProviderEmbedder

OPENAI = "openai:small"


def keys(entries: list[Any]) -> list[str]:
    return [entry.key for entry in entries]


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    async with embeddings_server() as made:
        monkeypatch.setenv("OPENAI_BASE_URL", made.url)
        monkeypatch.setenv("OPENAI_API_KEY", "the-key")
        yield made


@pytest.fixture
def cached(model_folder: Path, tmp_path: Path) -> Path:
    """The default model in the cache of Hugging Face, as a download would leave it."""
    folder = tmp_path / "models" / f"models--{local.DEFAULT.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("a" * 40)
    shutil.copytree(model_folder, snapshot)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("a" * 40)
    return snapshot


@pytest.fixture
def without_model2vec(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(_name: str) -> None:
        return None

    monkeypatch.setattr(local, "find_spec", find)


# -- a provider's


async def test_a_provider_is_asked_for_what_is_stored_and_what_is_searched(server: Server) -> None:
    async with Runtime(MemoryStore()) as runtime:
        memory = Memory(VectorMemoryService(OPENAI), "ann", runtime=runtime)
        await memory.store("patient_history", "Has a migraine now and then")
        await memory.store("supper", "Cooks noodles on Mondays")
        assert keys(await memory.search("which pill helps?")) == ["patient_history", "supper"]
    assert server.paths == ["/v1/embeddings"] * 3
    assert [asked["input"] for asked in server.requests] == [
        ["patient history: Has a migraine now and then"],
        ["supper: Cooks noodles on Mondays"],
        ["which pill helps?"],
    ]
    assert {asked["model"] for asked in server.requests} == {"small"}
    assert set(server.keys) == {"the-key"}
    assert server.connections == 1


async def test_many_texts_are_asked_for_a_batch_at_a_time(server: Server) -> None:
    async with Runtime(MemoryStore()) as runtime:
        session = runtime.session("s", user_id="ann")
        said = [{"role": "user", "content": f"number {n}"} for n in range(100)]
        await session.send_messages(said)
        memory = Memory(VectorMemoryService(OPENAI), "ann", runtime=runtime)
        assert len(await memory.ingest_from_session(session, strategy="messages")) == 100
    assert [len(asked["input"]) for asked in server.requests] == [64, 36]


async def test_only_the_beginning_of_a_long_text_is_sent(server: Server) -> None:
    async with Runtime(MemoryStore()) as runtime:
        memory = Memory(VectorMemoryService(OPENAI), "ann", runtime=runtime)
        await memory.store("long", "pasta " * 5_000)
    [asked] = server.requests
    assert len(asked["input"][0]) == 8_000


@pytest.mark.parametrize("status", [400, 401, 429, 500])
async def test_nothing_is_stored_when_the_provider_refuses(server: Server, status: int) -> None:
    async with Runtime(MemoryStore()) as runtime:
        memory = Memory(VectorMemoryService(OPENAI), "ann", runtime=runtime)
        await memory.store("before", "pasta")
        server.status = status
        with pytest.raises(ModelError, match=f"openai:small failed .*{status}") as told:
            await memory.store("after", "pasta")
        assert "the-key" not in str(told.value)
        with pytest.raises(ModelError):
            await memory.search("pasta")
        server.status = 200
        assert keys(await memory.search("pasta")) == ["before"]
        assert keys(await memory.entries()) == ["before"]


async def test_no_secret_of_the_environment_is_shown_with_what_a_provider_said(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "the-openai-key")
    monkeypatch.setenv("HF_TOKEN", "hf-token-of-ann")
    server.status = 401
    server.change = lambda _: {"error": {"message": "no the-openai-key, no hf-token-of-ann"}}
    with pytest.raises(ModelError, match=r"no \*\*\*, no \*\*\*;") as told:
        await ProviderEmbedder(OPENAI).embed(["pasta"])
    assert told.value.__cause__ is None
    assert told.value.__context__ is None


async def test_nothing_is_stored_when_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    async with embeddings_server() as gone:
        monkeypatch.setenv("OPENAI_BASE_URL", gone.url)
    async with Runtime(MemoryStore()) as runtime:
        memory = Memory(VectorMemoryService(OPENAI), "ann", runtime=runtime)
        with pytest.raises(ModelError, match="openai:small failed"):
            await memory.store("k", "pasta")
        assert await memory.entries() == []


def _fewer(answer: dict[str, Any]) -> dict[str, Any]:
    return {**answer, "data": answer["data"][1:]}


def _infinite(answer: dict[str, Any]) -> dict[str, Any]:
    data = [{**each, "embedding": [float("inf"), 0.0, 1.0]} for each in answer["data"]]
    return {**answer, "data": data}


def _empty(answer: dict[str, Any]) -> dict[str, Any]:
    return {**answer, "data": [{**each, "embedding": []} for each in answer["data"]]}


@pytest.mark.parametrize("change", [_fewer, _infinite, _empty])
async def test_an_answer_that_is_no_vector_is_an_error(server: Server, change: Any) -> None:
    server.change = change
    async with Runtime(MemoryStore()) as runtime:
        memory = Memory(VectorMemoryService(OPENAI), "ann", runtime=runtime)
        with pytest.raises(ModelError):
            await memory.store("k", "pasta")
        assert await memory.entries() == []


async def test_a_provider_without_its_key_says_which_variable_is_missing() -> None:
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        await ProviderEmbedder(OPENAI).embed(["x"])


async def test_a_provider_that_does_not_exist_is_named() -> None:
    with pytest.raises((ConfigurationError, ModelError), match="nobody:small"):
        await ProviderEmbedder("nobody:small").embed(["x"])


def test_one_embedder_serves_two_loops_and_closes_its_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    embedder = ProviderEmbedder(OPENAI)
    servers: list[Server] = []

    async def main() -> None:
        async with embeddings_server() as server:
            monkeypatch.setenv("OPENAI_BASE_URL", server.url)
            vectors = await asyncio.gather(*(embedder.embed(["pasta"]) for _ in range(5)))
            assert {tuple(each[0])[:2] for each in vectors} == {(0.0, 1.0)}
            assert len(server.requests) == 5
            servers.append(server)

    for _ in range(2):
        asyncio.run(main())
    assert [server.open for server in servers] == [0, 0]


def test_loops_one_after_the_other_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = ProviderEmbedder(OPENAI)
    loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()

    async def main() -> None:
        loops.add(asyncio.get_running_loop())
        await embedder.embed(["pasta"])

    with elsewhere(cast("Any", embeddings_server)) as server:
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        for _ in range(5):
            asyncio.run(main())
        assert len(server.requests) == 5
    gc.collect()
    assert len(loops) == 0


def test_a_process_holds_on_to_a_number_of_embedders_only(monkeypatch: pytest.MonkeyPatch) -> None:
    first = ProviderEmbedder.named(OPENAI)
    assert ProviderEmbedder.named(OPENAI) is first
    for number in range(100):
        monkeypatch.setenv("OPENAI_API_KEY", f"key {number}")
        ProviderEmbedder.named(OPENAI)
    monkeypatch.delenv("OPENAI_API_KEY")
    assert ProviderEmbedder.named(OPENAI) is not first


# -- one on this machine


async def test_a_local_model_finds_what_means_the_same(model_folder: Path) -> None:
    async with Runtime(MemoryStore()) as runtime:
        memory = Memory(VectorMemoryService(f"local:{model_folder}"), "ann", runtime=runtime)
        await memory.store("patient_history", "Chronic migraine, diagnosed 2020")
        await memory.store("supper", "pasta on Mondays")
        await memory.store("commute", "by bicycle with a helmet")
        found = await memory.search("headache medication", limit=5)
        assert found[0].key == "patient_history"
        assert 0 < (found[0].score or 0) <= 1


async def test_a_local_model_is_known_by_its_weights_wherever_it_lies(
    model_folder: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "elsewhere" / "small"
    shutil.copytree(model_folder, moved)
    one, other = local.load(str(model_folder)), local.load(str(moved))
    assert one.name == other.name
    assert one.name.startswith("model2vec:small@")
    assert one.dimensions == 3
    assert local.load(str(model_folder)) is one


async def test_a_model_in_the_cache_is_local_without_a_download(cached: Path) -> None:
    assert cached.is_dir()
    chosen = await VectorMemoryService("local").embedder()
    assert chosen is not None
    assert chosen.name.startswith("model2vec:potion-base-8M@")
    automatic = await VectorMemoryService().embedder()
    assert automatic is chosen
    by_name = await VectorMemoryService(f"local:{local.DEFAULT}").embedder()
    assert by_name is chosen


async def test_a_model_that_is_not_here_is_told_and_not_downloaded() -> None:
    for name in ("local", "local:somebody/other", "local:/no/such/folder", "local:no such name"):
        with pytest.raises(ConfigurationError, match="Tertulia downloads none"):
            await VectorMemoryService(name).embedder()


async def test_a_folder_without_a_model_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        await VectorMemoryService(f"local:{tmp_path / 'empty'}").embedder()


@pytest.mark.usefixtures("without_model2vec")
async def test_without_the_package_local_gives_its_install_line() -> None:
    with pytest.raises(MissingExtra, match=r"pip install 'tertulia\[embeddings\]'"):
        await VectorMemoryService("local").embedder()
    assert await VectorMemoryService().embedder() is None


# -- which one is meant


async def test_no_embedder_means_words_alone_where_nothing_is_installed() -> None:
    assert await VectorMemoryService().embedder() is None
    assert await VectorMemoryService("off").embedder() is None


async def test_the_environment_names_the_embedder_unless_an_argument_does(
    monkeypatch: pytest.MonkeyPatch, cached: Path
) -> None:
    assert cached.is_dir()
    monkeypatch.setenv("TERTULIA_EMBEDDER", OPENAI)
    chosen = await VectorMemoryService().embedder()
    assert isinstance(chosen, ProviderEmbedder)
    assert chosen.name == OPENAI
    assert await VectorMemoryService("off").embedder() is None
    monkeypatch.setenv("TERTULIA_EMBEDDER", "off")
    assert await VectorMemoryService().embedder() is None
    monkeypatch.setenv("TERTULIA_EMBEDDER", "")
    assert await VectorMemoryService().embedder() is not None
    monkeypatch.setenv("TERTULIA_EMBEDDER", "nonsense")
    with pytest.raises(ConfigurationError, match="is no embedder"):
        await VectorMemoryService().embedder()


@pytest.mark.parametrize("wrong", ["", "gpt", "openai:", ":x", "openai:a\nb", 7, Embedder])
def test_what_cannot_be_an_embedder_is_refused_at_once(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="is no embedder"):
        VectorMemoryService(wrong)


async def test_no_provider_is_asked_that_was_not_named(server: Server) -> None:
    async with Runtime(MemoryStore()) as runtime:
        await runtime.memory("ann").store("k", "pasta")
        assert keys(await runtime.memory("ann").search("pasta")) == ["k"]
    assert server.requests == []


def test_asking_for_memory_imports_no_embedder() -> None:
    assert embedders.check("openai:x") == "openai:x"
    code = "import sys, tertulia; tertulia.Memory(); print(*sys.modules)"
    import subprocess

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert not loaded & {"pydantic_ai", "model2vec", "numpy", "sqlite_vec", "huggingface_hub"}
