"""Images as the engine knows them: find, show, fetch, send, make from a container, remove."""
