"""Pipecat: four linked frame processors, each with its queues and tasks; frames enter the first."""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import Any

from loguru import logger
from pipecat.clocks.system_clock import SystemClock
from pipecat.frames.frames import DataFrame, Frame, StartFrame
from pipecat.processors.frame_processor import (
    FrameDirection,
    FrameProcessor,
    FrameProcessorSetup,
)
from pipecat.utils.asyncio.task_manager import TaskManager

from benchmarks.live_chains import HOPS, TEXT, Arrived, Chain


@dataclass
class Echo(DataFrame):
    """The event of these benchmarks."""

    text: str


class Passing(FrameProcessor):
    """Hands on what it gets."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)


class Counting(FrameProcessor):
    """The last one."""

    def __init__(self, arrived: Arrived) -> None:
        super().__init__()
        self.arrived = arrived
        self.started = asyncio.Event()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, Echo):
            self.arrived()
        elif isinstance(frame, StartFrame):
            self.started.set()


class Processors(Chain):
    """Four of them, as a pipeline links them."""

    distributions = ("pipecat-ai",)

    async def open(self, arrived: Arrived) -> None:
        logger.remove()
        logger.add(sys.stderr, level="WARNING")
        last = Counting(arrived)
        self.processors = [*(Passing() for _ in range(HOPS - 1)), last]
        manager = TaskManager(loop=asyncio.get_running_loop())
        setup = FrameProcessorSetup(clock=SystemClock(), task_manager=manager, pipeline_worker=None)
        for before, after in zip(self.processors, self.processors[1:], strict=False):
            before.link(after)
        for processor in self.processors:
            await processor.setup(setup)
        await self.processors[0].queue_frame(StartFrame())
        await asyncio.wait_for(last.started.wait(), 10)

    def event(self) -> Any:
        return Echo(TEXT)

    async def put(self, event: Any) -> None:
        await self.processors[0].queue_frame(event)

    async def close(self) -> None:
        for processor in self.processors:
            await processor.cleanup()
