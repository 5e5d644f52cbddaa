# The rules that conftest calls. They check each manifest with the policies of a cluster.
package main

import data.lib.manifests

deny contains message if some message in manifests.denied

warn contains message if some message in manifests.warned
