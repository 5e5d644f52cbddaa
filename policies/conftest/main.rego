# What conftest calls. Each manifest is judged by the same policies as in a cluster.
package main

import data.lib.manifests

deny contains message if some message in manifests.refused

warn contains message if some message in manifests.warned
