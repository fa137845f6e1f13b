"""``GET /training?project=ID``: how a project's training jobs stand, newest first."""

from flask import Blueprint, Response, g, jsonify, request

from backend.bootstrap import Backend
from backend.domain.learning import job_to_json
from backend.errors import UsageError
from backend.services.projects import find_project


def training_routes(backend: Backend) -> Blueprint:
    """Make the route over the service's parts."""
    routes = Blueprint("training", __name__)

    @routes.get("/training")
    def training() -> Response:
        wanted = request.args.get("project", "")
        if not wanted:
            raise UsageError("say which project, as in /training?project=7")
        with backend.reading() as unit:
            project = find_project(unit.projects.all(), wanted)
        jobs = backend.training.of(project.uid)
        g.facts |= {"project": project.id, "jobs": len(jobs)}
        return jsonify({"project": project.id, "jobs": [job_to_json(job) for job in jobs]})

    return routes
