# One of Prometheus' programs; `entrypoint` is a link to it.
FROM scratch
COPY bin/ /bin/
USER 65534:65534
ENTRYPOINT ["/bin/entrypoint"]
