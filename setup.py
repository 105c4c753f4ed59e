"""What setup.cfg cannot say."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build import build


class Build(build):
    """A build that installs what is there: no module that was deleted since the last one."""

    def run(self) -> None:
        if Path(self.build_lib).parent == Path(self.build_base):  # and not one that was named
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


def description() -> str:
    """Return README.md for an index, which has no files beside it: without links to them."""
    text = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)\n*", "", text)
    return re.sub(r"\[([^\]]+)\]\((?!https://)[^)]*\)", r"\1", text)


setup(
    cmdclass={"build": Build},
    long_description=description(),
    long_description_content_type="text/markdown",
)
