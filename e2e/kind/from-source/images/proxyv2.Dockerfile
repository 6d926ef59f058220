# Debian with the iptables of istio-init, Envoy, and Istio's agent with its template of a bootstrap.
FROM scratch
ADD debian.tar /
COPY envoy_bootstrap.json /var/lib/istio/envoy/envoy_bootstrap_tmpl.json
COPY envoy pilot-agent /usr/local/bin/
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ENTRYPOINT ["/usr/local/bin/pilot-agent"]
