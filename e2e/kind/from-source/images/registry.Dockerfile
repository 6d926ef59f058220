FROM scratch
COPY tmp /tmp
COPY crane /crane
USER 65534:65534
ENTRYPOINT ["/crane", "registry", "serve", "--address", "0.0.0.0:5000"]
