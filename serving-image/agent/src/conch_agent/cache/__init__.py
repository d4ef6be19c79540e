"""The cache: the files of models on a claim that the pods of a namespace share.

```
.conch-cache/
  format               version of this layout; an agent leaves a newer one alone
  blobs/<sha256>       complete files under the digest of their content, read-only
  parts/<key>.part     incomplete files, each locked by the agent that downloads it
  parts/<key>.json     the record of a file of a source: how much of it is there, and then its digest
  contents/<digest>    the files of a model's content: path, digest and size
  sources/<key>        the content that a source had when it was fetched last
  archives/<key>       the digest of the content of archives that a pod has unpacked
  pods/<pod>/<model>/  the folders of a pod, made of hard links to blobs
```

A hard link is what holds a blob: it is deleted only when no pod's folder has it, and a pod that links it while it is
deleted has it all the same. So no pod waits for another one but for the download of a file. The folder of a pod is
deleted by others when its lease has expired: see `conch_agent.cache.lease`.

Pods trust each other's blobs: a claim belongs to one namespace. What is verified is what comes from outside: bytes are
hashed while they arrive, and a blob that was written to later has another modification time, and is hashed again.
"""

from conch_agent.cache.errors import CacheUnusableError
from conch_agent.cache.last import LastContent
from conch_agent.cache.opening import keep_lease, open_cache
from conch_agent.cache.source import CachedSource
from conch_agent.cache.store import Cache

__all__ = ["Cache", "CacheUnusableError", "CachedSource", "LastContent", "keep_lease", "open_cache"]
