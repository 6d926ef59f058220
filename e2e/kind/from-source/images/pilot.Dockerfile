FROM scratch
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY pilot-discovery /usr/local/bin/pilot-discovery
ENV PATH=/usr/local/bin
USER 1337:1337
ENTRYPOINT ["/usr/local/bin/pilot-discovery"]
