"""Which commands there are: name → (module below pyreg/commands, one line of help).

A table, so that one command is started without importing the others.
"""

from __future__ import annotations

COMMANDS = {
    "run": ("run", "Create and run a new container from an image"),
    "ps": ("ps", "List containers"),
    "logs": ("logs", "Fetch the logs of a container"),
    "rm": ("rm", "Remove one or more containers"),
    "pull": ("pull", "Download an image from a registry"),
    "push": ("push", "Upload an image to a registry"),
    "images": ("images", "List images"),
    "tag": ("tag", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE"),
    "rmi": ("rmi", "Remove one or more images"),
    "import": ("import_", "Make an image from the contents of a tarball"),
    "save": ("save", "Save one or more images to a tar archive"),
    "load": ("load", "Load images from a tar archive"),
    "inspect": ("inspect", "Return low-level information on images"),
    "login": ("login", "Authenticate to a registry"),
    "logout": ("logout", "Log out from a registry"),
    "search": ("search", "Search a registry for images"),
    "tags": ("tags", "List the tags of a repository in its registry"),
    "history": ("history", "Show what changed in a repository's tags"),
    "undo": ("undo", "Take back the last change of a tag, or a release"),
    "restore": ("restore", "Bring back a deleted tag, manifest or repository"),
    "release": ("release", "Move many tags in many repositories, all or none"),
    "quota": ("quota", "How much a namespace may hold"),
    "retention": ("retention", "Rules that let old tags go"),
    "serve": ("serve", "Run the registry server"),
    "user": ("user", "Manage the registry's users"),
    "group": ("group", "Manage groups of users and robots"),
    "robot": ("robot", "Manage accounts for machines"),
    "trust": ("trust", "Let robots log in with tokens of a CI system or other issuer"),
    "token": ("token", "Manage personal access tokens"),
    "session": ("session", "See where an account is logged in, and log it out there"),
    "key": ("key", "List and rotate the keys that sign access tokens"),
    "policy": ("policy", "Say who may do what to which repositories, and ask why"),
    "adopt": ("adopt", "Take over a docker/registry/v2 directory without copying its blobs"),
    "gc": ("gc", "Watch, run, simulate and pause garbage collection"),
    "why": ("why", "Show what keeps a blob or manifest in the registry"),
    "du": ("du", "Show the bytes of tags, repositories and namespaces"),
    "db": ("db", "Upgrade, check and back up the registry's database"),
    "config": ("config", "Check and explain the configuration"),
}

# Docker's management commands: group → word → plain command.
GROUPS = {
    "image": {
        "ls": "images",
        "list": "images",
        "pull": "pull",
        "push": "push",
        "tag": "tag",
        "rm": "rmi",
        "import": "import",
        "inspect": "inspect",
        "save": "save",
        "load": "load",
    },
    "container": {"run": "run", "ls": "ps", "list": "ps", "ps": "ps", "logs": "logs", "rm": "rm"},
}
