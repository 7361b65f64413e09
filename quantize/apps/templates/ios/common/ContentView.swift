// Put this in place of the ContentView.swift of a new iOS app that uses the package beside it.
import SmallModel
import SwiftUI

struct ContentView: View {
    @State private var question = ""
    @State private var answer = "loading"
    @State private var profile = ""
    @State private var model: Model?
    @State private var running = false

    var body: some View {
        ScrollView {
            VStack(alignment: .leading, spacing: 12) {
                TextField("A text for the model", text: $question, axis: .vertical).textFieldStyle(.roundedBorder)
                Button("Run", action: run).disabled(model == nil || running)
                Text(answer)
                Text(profile).font(.caption.monospaced()).textSelection(.enabled)
            }.padding()
        }
        .task { await load() }
    }

    private func load() async {
        do {
            model = try await Task.detached { try Model() }.value
            answer = "ready"
        } catch {
            answer = "error: \(error.localizedDescription)"
        }
    }

    private func run() {
        guard let model else { return }
        let asked = question
        running = true
        Task {
            do {
                profile = try await Task.detached {
                    try model.run(asked, repeats: 5) { text in Task { @MainActor in answer = text } }
                }.value
                print(profile)
            } catch {
                answer = "error: \(error.localizedDescription)"
            }
            running = false
        }
    }
}
