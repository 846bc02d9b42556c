"""Print the lowest version of each dependency that pyproject.toml allows, as constraints."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
for requirement in project["dependencies"] + project["optional-dependencies"]["cli"]:
    name, version = re.match(r"([\w-]+)>=([\w.]+)", requirement).groups()
    print(f"{name}=={version}")
