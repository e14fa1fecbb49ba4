# Ordinaut: one image, every role. Built in two stages, so that what installs is not in what runs.
#
#   docker build -t ordinaut .
#   docker build -t ordinaut --build-arg BASE_IMAGE=python:3.12-slim .
#
# Wheels from an index of your own: --secret id=pip.conf,src=pip.conf (it stays out of the layers).

ARG BASE_IMAGE=python:3.13-slim

FROM ${BASE_IMAGE} AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python3 -m venv --without-pip /opt/ordinaut

# The dependencies first: a change of the program's own files does not install them again.
COPY pyproject.toml ./
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
        > requirements.txt \
    && python3 -m pip --python /opt/ordinaut/bin/python3 install --requirement requirements.txt

COPY README.md LICENSE ./
COPY migrations ./migrations
COPY projections ./projections
COPY ordinaut ./ordinaut
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -m pip --python /opt/ordinaut/bin/python3 install --no-deps .


FROM ${BASE_IMAGE}

# Nothing is installed in a running container: the base image's pip would serve nobody but an intruder.
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin ordinaut \
    && python3 -c "import importlib.util, shutil; pip = importlib.util.find_spec('pip'); pip and shutil.rmtree(pip.submodule_search_locations[0])" \
    && rm -f /usr/local/bin/pip*

COPY --from=build /opt/ordinaut /opt/ordinaut
COPY deploy/healthcheck.py /usr/local/lib/ordinaut/healthcheck.py

ENV PATH=/opt/ordinaut/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    ORDINAUT_HOST=0.0.0.0 \
    ORDINAUT_LOG_FORMAT=json

USER 10001:10001
WORKDIR /home/ordinaut
EXPOSE 8080

# SIGTERM drains: see ORDINAUT_DRAIN_SECONDS. Whoever stops the container must allow 10 s more than that.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=8s --start-period=40s --retries=3 \
    CMD ["python3", "-I", "/usr/local/lib/ordinaut/healthcheck.py"]

ENTRYPOINT ["ordinaut"]
CMD ["serve"]
