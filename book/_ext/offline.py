"""Leave out Thebe, which Jupyter Book always loads, twice, and which would fetch its code from a public server."""


def drop_thebe(app, pagename, templatename, context, doctree):
    context["script_files"] = [
        script
        for script in context.get("script_files", [])
        if "thebe" not in f"{getattr(script, 'filename', '')} {getattr(script, 'attributes', '')}".lower()
    ]


def setup(app):
    app.connect("html-page-context", drop_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
