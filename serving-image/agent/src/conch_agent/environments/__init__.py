"""Python environments: the packages of a requirements.txt beside a Python model, built once and kept by their hash.

Triton's Python backend takes the environment of the parameter EXECUTION_ENV_PATH: an archive of conda-pack, or a
folder. Where the parameter names a requirements.txt of the model, the agent makes such a folder, `.environment/` in the
model folder, as a virtual environment of the serving image's interpreter:

    pyvenv.cfg, bin/python3          lead to that interpreter
    bin/activate                     puts bin/ first into PATH; a later Triton does so itself
    lib/python3.*/site-packages/     what pip has installed, and after it the packages of the image

Packages are part of what a revision serves, which is the same in each of its pods. So requirements.txt has every
package with its version, and the hashes too where a signature is required, and no package is built: wheels only, so
that no code of a package runs before the model's process. The wheels are those of a folder `wheels/` beside
requirements.txt, or else of an index.

With a cache on a claim, the files are blobs of it like those of an archive: one pod installs, and the others link.
"""

from conch_agent.environments.index import INDEX_KEYS, parse_index
from conch_agent.environments.parameter import find_requirements, set_environment
from conch_agent.environments.requirements import WHEELS, Requirements, read_requirements
from conch_agent.environments.store import ENVIRONMENT_FOLDERS, Environments

__all__ = [
    "ENVIRONMENT_FOLDERS",
    "INDEX_KEYS",
    "WHEELS",
    "Environments",
    "Requirements",
    "find_requirements",
    "parse_index",
    "read_requirements",
    "set_environment",
]
