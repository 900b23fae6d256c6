"""The HTTP API: `create_app(settings)`, and what it is made of.

    run.serve ── uvicorn (protocol.py: bounded heads)
              └─ create_app
                 ├── middleware/   what every request passes
                 └── guard.py      every route is closed unless declared open
                     └── routes/   one file an idea
                         ├── schemas/   shapes of bodies, checked by pydantic
                         └── Models     name -> loaded model

Nothing happens at import; two apps may live in one process.
"""
