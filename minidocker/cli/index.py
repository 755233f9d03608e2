"""All commands: the module that has each, and one line about it.

Rules   - pure data, on the hot path; a module is imported only when its command is named.
        - GROUPS gives the long forms (`container ls`) the name of the command that they are (`ps`).
"""

COMMANDS: dict[str, tuple[str, str, str]] = {
    "attach": ("attach", "ATTACH", "Connect this terminal's streams to a running container"),
    "build": ("build", "BUILD", "Build an image from a Dockerfile"),
    "check": ("course", "CHECK", "Check an exercise of the course"),
    "commit": ("capture", "COMMIT", "Make an image from what a container changed"),
    "completion": ("completion", "COMPLETION", "Print what makes a shell complete this command line"),
    "__complete": ("completion", "COMPLETE", "What the completion scripts ask"),
    "cp": ("copy", "COPY", "Copy files between a container and this machine"),
    "create": ("run", "CREATE", "Make a container without starting it"),
    "diff": ("look", "DIFF", "Show what a container changed in its filesystem"),
    "doctor": ("course", "DOCTOR", "Show what this machine can do, and the cure where it cannot"),
    "events": ("events", "EVENTS", "Show the daemon's events as they happen"),
    "exec": ("exec", "EXEC", "Run one more command in a running container"),
    "export": ("capture", "EXPORT", "Write a container's filesystem as a tar archive"),
    "history": ("images", "HISTORY", "Show the steps that made an image"),
    "images": ("images", "IMAGES", "List images"),
    "import": ("capture", "IMPORT", "Make an image from a tar archive of a filesystem"),
    "info": ("system", "INFO", "Show what the daemon says of itself and its machine"),
    "inspect": ("inspect", "INSPECT", "Show everything about objects, as JSON"),
    "kill": ("verbs", "KILL", "Send a signal to running containers (SIGKILL)"),
    "load": ("archive", "LOAD", "Read images from a tar archive or stdin"),
    "login": ("credentials", "LOGIN", "Keep credentials for a registry"),
    "logout": ("credentials", "LOGOUT", "Forget the credentials for a registry"),
    "logs": ("look", "LOGS", "Show what a container wrote"),
    "pause": ("verbs", "PAUSE", "Freeze all processes of containers"),
    "port": ("look", "PORT", "List a container's published ports"),
    "ps": ("ps", "PS", "List containers"),
    "pull": ("transfer", "PULL", "Fetch an image from a registry"),
    "push": ("transfer", "PUSH", "Send an image to a registry"),
    "rename": ("verbs", "RENAME", "Give a container another name"),
    "restart": ("verbs", "RESTART", "Stop and start containers"),
    "rm": ("remove", "RM", "Remove containers"),
    "rmi": ("images", "RMI", "Remove images"),
    "run": ("run", "RUN", "Make a container from an image and run it"),
    "save": ("archive", "SAVE", "Write images as a tar archive (to stdout, if no file is named)"),
    "start": ("start", "START", "Start stopped containers"),
    "stats": ("stats", "STATS", "Show what containers use, live"),
    "stop": ("verbs", "STOP", "Stop running containers"),
    "tag": ("images", "TAG", "Give an image one more name"),
    "top": ("look", "TOP", "Show a container's processes"),
    "unpause": ("verbs", "UNPAUSE", "Let the processes of paused containers run on"),
    "update": ("update", "UPDATE", "Change the limits of containers"),
    "version": ("system", "VERSION", "Show the versions of client and daemon"),
    "wait": ("verbs", "WAIT", "Wait for containers to end, and print their exit statuses"),
    "container inspect": ("inspect", "CONTAINER_INSPECT", "Show everything about containers"),
    "container prune": ("prune", "CONTAINER_PRUNE", "Remove all stopped containers"),
    "image inspect": ("inspect", "IMAGE_INSPECT", "Show everything about images"),
    "image prune": ("prune", "IMAGE_PRUNE", "Remove unused images"),
    "network connect": ("networks", "CONNECT", "Connect a container to a network"),
    "network create": ("networks", "CREATE", "Create a network"),
    "network disconnect": ("networks", "DISCONNECT", "Disconnect a container from a network"),
    "network inspect": ("inspect", "NETWORK_INSPECT", "Show everything about networks"),
    "network ls": ("networks", "LIST", "List networks"),
    "network prune": ("prune", "NETWORK_PRUNE", "Remove all unused networks"),
    "network rm": ("networks", "REMOVE", "Remove networks"),
    "plugin disable": ("plugins", "DISABLE", "Disable a plugin"),
    "plugin enable": ("plugins", "ENABLE", "Enable a plugin"),
    "plugin inspect": ("inspect", "PLUGIN_INSPECT", "Show everything about plugins"),
    "plugin install": ("plugins", "INSTALL", "Install a plugin"),
    "plugin ls": ("plugins", "LIST", "List plugins"),
    "plugin rm": ("plugins", "REMOVE", "Remove plugins"),
    "system df": ("system", "DISK", "Show the disk space that is used"),
    "system prune": ("prune", "SYSTEM_PRUNE", "Remove everything unused"),
    "volume create": ("volumes", "CREATE", "Create a volume"),
    "volume inspect": ("inspect", "VOLUME_INSPECT", "Show everything about volumes"),
    "volume ls": ("volumes", "LIST", "List volumes"),
    "volume prune": ("prune", "VOLUME_PRUNE", "Remove unused volumes"),
    "volume rm": ("volumes", "REMOVE", "Remove volumes"),
}

_CONTAINER = ("attach", "commit", "cp", "create", "diff", "exec", "export", "kill", "logs", "pause", "port", "rename",
              "restart", "rm", "run", "start", "stats", "stop", "top", "unpause", "update", "wait")
_IMAGE = ("build", "history", "import", "load", "pull", "push", "save", "tag")
_NETWORK = ("connect", "create", "disconnect", "inspect", "ls", "prune", "rm")
_PLUGIN = ("disable", "enable", "inspect", "install", "ls", "rm")
_VOLUME = ("create", "inspect", "ls", "prune", "rm")

GROUPS: dict[str, tuple[str, dict[str, str]]] = {
    "container": ("Manage containers", {
        **{name: name for name in _CONTAINER}, "ls": "ps", "list": "ps", "ps": "ps", "remove": "rm",
        "inspect": "container inspect", "prune": "container prune",
    }),
    "image": ("Manage images", {
        **{name: name for name in _IMAGE}, "ls": "images", "list": "images",
        "rm": "rmi", "remove": "rmi", "inspect": "image inspect", "prune": "image prune",
    }),
    "network": ("Manage networks", {
        **{name: f"network {name}" for name in _NETWORK},
        "list": "network ls", "remove": "network rm",
    }),
    "plugin": ("Manage plugins", {
        **{name: f"plugin {name}" for name in _PLUGIN},
        "list": "plugin ls", "remove": "plugin rm",
    }),
    "system": ("Manage the daemon", {
        "df": "system df", "events": "events", "info": "info", "prune": "system prune",
    }),
    "volume": ("Manage volumes", {
        **{name: f"volume {name}" for name in _VOLUME},
        "list": "volume ls", "remove": "volume rm",
    }),
}

COMMON = ("run", "exec", "ps", "pull", "push", "images", "login", "logout", "version", "info")
