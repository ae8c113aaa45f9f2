# The example's backend: docker build -f deploy/backend.Dockerfile -t session_manager-example-backend .

FROM python:3.13-slim AS build
COPY clients/django /client
RUN python -m venv /venv \
  && /venv/bin/pip install --no-cache-dir '/client[psycopg,openapi]' gunicorn

FROM python:3.13-slim
COPY --from=build /venv /venv
COPY examples/backend /app
COPY deploy/backend.sh /usr/local/bin/backend.sh
RUN useradd --system --uid 10001 --no-create-home app
ENV PATH=/venv/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
USER app
EXPOSE 8000
ENTRYPOINT ["backend.sh"]
CMD ["gunicorn", "--bind", "0.0.0.0:8000", "--workers", "2", "--threads", "4", "--worker-tmp-dir", "/dev/shm", "config.wsgi"]
